/**
 * What keeper and supervisor ignore from their first line on: the target ends the run, not what is sent to a terminal's
 * processes or to all of a service.
 */
export const IGNORED = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGPIPE'] as const;
