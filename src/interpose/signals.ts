/*
 * The target ends the run, not what is sent to a terminal's processes or to all of a service. Imported first: from then on no
 * signal but SIGKILL and SIGSTOP has an effect.
 */
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGPIPE'] as const) {
  process.on(signal, () => {});
}
