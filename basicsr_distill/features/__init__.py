"""Image encoders: what a picture shows, as a vector."""
