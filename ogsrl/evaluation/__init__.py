"""How good a policy is: estimates from logged patients, and the truth where it is known."""
