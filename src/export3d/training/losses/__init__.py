"""What training minimises: Eqs. 13-15, perceptual loss, discriminator."""
