"""Access to the gateway: API keys, the local token, logins to the job page, and protection against other sites."""
