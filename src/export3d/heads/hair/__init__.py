"""Hair: styles in numbers, the volume over the skull, strands, and how its shells are lit."""
