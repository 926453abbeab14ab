"""What makes a detector a product: regions, kinds, counts, verdicts, reports."""
