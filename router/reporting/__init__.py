"""What was spent and saved: figures, alerts, the replay of a policy, and a check of prices."""
