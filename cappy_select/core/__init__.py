"""What every room stands on: values, errors, threads, bounded parsing. It must never know an LLM or a model."""
