"""The geometry of a head: vertices, identity and expression modes, files that hold them."""
