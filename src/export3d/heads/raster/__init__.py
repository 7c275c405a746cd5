"""What turns triangles into pixels: rasterisation, light, procedural fields."""
