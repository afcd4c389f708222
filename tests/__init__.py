"""The promises of the template, each shown on what it renders."""
