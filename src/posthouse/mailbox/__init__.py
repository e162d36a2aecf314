"""What an account holds: mailboxes, emails, threads, changes; one writer at a time for each account."""
