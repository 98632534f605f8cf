"""One prompt to many answers: requests, providers, retries, the bill. It must never score."""
