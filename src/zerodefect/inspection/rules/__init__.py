"""Rules on a product's components: what is typed, what components look like, what holds."""
