import { messageOf, warn } from './log.ts';
import { CANNOT_BEGIN, parsePlan } from './plan.ts';
import { Supervisor } from './supervisor.ts';

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR2', 'SIGPIPE'] as const) {
  process.on(signal, () => {}); // it ends with the target
}
const plan = parsePlan(process.argv[2]);
const supervisor = begin();
supervisor.run();
if (plan.reportFd !== undefined) {
  try {
    supervisor.writeReports();
  } catch {
    // nobody is left to read them, and a successor could not write them either
  }
}
process.exit(0);

/** What keeps one supervisor from beginning keeps every successor: the keeper need not try them. */
function begin(): Supervisor {
  try {
    return new Supervisor(plan);
  } catch (error) {
    warn(`supervisor: ${messageOf(error)}`);
    process.exit(CANNOT_BEGIN);
  }
}
