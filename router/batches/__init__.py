"""The providers' batch tier: what was sent, what came back, and what becomes of each text."""
