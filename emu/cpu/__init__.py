"""The CPU: Unicorn as a hart, and the native part that makes it quick and exact."""
