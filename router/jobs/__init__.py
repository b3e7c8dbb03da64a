"""Jobs of collections: what embedding would cost (quote, estimate), the planner that begins a job, and the worker.

What stops a job is in `errors`."""
