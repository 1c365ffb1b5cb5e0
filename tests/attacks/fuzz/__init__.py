"""Every parser of ours, fed with junk. ``python -m tests.attacks.fuzz --help`` runs it for as long as you like."""
