"""How a person looks: skin, hair, eyes, props, scene, and the picture of it all."""
