"""Discovery: from the model under test to candidate scenarios (Defuse)."""
