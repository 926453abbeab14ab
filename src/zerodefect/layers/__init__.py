"""Parts that several methods share; they know tensors and nothing of any method."""
