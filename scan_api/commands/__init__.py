"""The `fanxing` command: what a brand, an operator and a demonstrator do at a terminal."""
