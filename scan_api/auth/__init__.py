"""Who is calling: API keys for machines, sessions for members."""
