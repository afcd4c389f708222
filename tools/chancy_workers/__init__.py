"""What stands around the template."""
