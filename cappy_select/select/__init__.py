"""Many answers to one: gates, scores, strategies. It must never open a socket or a file."""
