"""What patients do next: a probabilistic ensemble and its peers, fitted on training patients."""
