"""Dense networks to compare with."""
