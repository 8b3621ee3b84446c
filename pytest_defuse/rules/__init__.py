"""Decision trees over named features, and rules that describe which images fail."""
