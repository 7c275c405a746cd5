# The studio on a CPU: docker build -t export3d . && docker run -p 7860:7860 -e EXPORT3D_PASSWORD=... export3d
FROM python:3.11-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends g++ libgl1 libegl1 libgles2 libglib2.0-0 && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY pyproject.toml setup.py constraints.txt README.md LICENSE NOTICE ./
COPY src src
RUN pip install --no-cache-dir torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu \
 && pip install --no-cache-dir -c constraints.txt ".[studio]" \
 && useradd --create-home studio
# Fetched by the user who serves: it lies in that user's cache.
USER studio
RUN export3d models get face-landmarker
ENV EXPORT3D_YES=1
EXPOSE 7860
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import socket; socket.create_connection(('127.0.0.1', 7860), 5)"]
# Add --api-only for the HTTP interface alone.
CMD ["export3d", "studio", "--host", "0.0.0.0", "--no-browser"]
