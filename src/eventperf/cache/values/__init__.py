"""Values on their way to the tiers and back."""
