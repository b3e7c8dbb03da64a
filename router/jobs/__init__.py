"""Jobs of collections: what they would cost, their plan, and the worker that runs them."""
