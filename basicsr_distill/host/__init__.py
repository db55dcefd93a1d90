"""BasicSR 1.4.2 on today's libraries: import hooks, registration of our components, patches."""
