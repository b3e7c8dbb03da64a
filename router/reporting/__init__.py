"""Reports on what was spent and saved: figures of usage, budget alerts, the replay of a policy, the price check.

Everything here reads the stores; only alerts write, to their own."""
