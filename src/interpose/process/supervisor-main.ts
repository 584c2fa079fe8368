import { Outlet } from '../../sys/outlet.ts';
import { logTo, messageOf, warn } from '../run/log.ts';
import { CANNOT_BEGIN, parsePlan } from '../run/plan.ts';
import { Supervisor } from './supervisor.ts';
import { removeSysfs } from './sysfs.ts';
import { logOf } from './target-stderr.ts';

const plan = parsePlan(process.argv[2]);
logTo(logOf(plan));
const supervisor = begin();
process.on('uncaughtException', (error) => {
  warn(`supervisor: ${error.stack ?? error.message}`);
  process.exit(CANNOT_BEGIN);
});
supervisor.run();
try {
  supervisor.writeReports();
} catch {
  // nobody is left to read them, and a successor could not write them either
}
removeSysfs(plan);
process.exit(0);

/** The keeper, which reads this process's stderr, says why it could not begin: once, however many have tried. */
function begin(): Supervisor {
  try {
    return new Supervisor(plan);
  } catch (error) {
    new Outlet(2).write(Buffer.from(`error: ${messageOf(error)}\n`));
    process.exit(CANNOT_BEGIN);
  }
}
