"""What the router knows and decides, without touching the world: no I/O, no clock, no globals."""
