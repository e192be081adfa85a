"""All masks of a model at once: which nodes share a generator, and how that is written. Reads what nodes say."""
