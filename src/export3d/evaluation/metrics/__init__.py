"""What measures pictures and faces, and intervals of it."""
