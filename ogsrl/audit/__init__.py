"""The audit: gates over what every stage reported, one verdict, and the model card."""
