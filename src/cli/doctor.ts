import { release } from 'node:os';
import { type Command } from 'commander';
import { attempted } from '../doctor/attempted.ts';
import type { Check } from '../doctor/check.ts';
import { examine, works } from '../doctor/examine.ts';
import { run } from '../doctor/runs.ts';
import { Host } from '../host/host.ts';
import { qemuVersion } from '../vmm/qemu-version.ts';
import { print } from './output.ts';

export function add(program: Command): void {
  program
    .command('doctor')
    .description('whether run works on this host, by trying, and what can be done if it does not')
    .option('--json', 'print JSON')
    .addHelpText('after', help)
    .action((options: { json?: true }) => {
      const checks = examine({
        host: new Host(),
        env: process.env,
        release: release(),
        arch: process.arch,
        node: process.versions.node,
        attempts: attempted,
        run,
        qemuVersion,
      });
      print(options.json === true ? `${JSON.stringify({ works: works(checks), checks })}\n` : inWords(checks));
      if (!works(checks)) process.exitCode = 1;
    });
}

const help = `
Each line begins with ok, warn or fail, and ends with what can be done. The exit status is 0 if run works, also if something
else is missing, and 1 if it does not. Run it as the user, and in the container or unit, that the VMM is to run as and in.`;

/** What `doctor` prints for people. */
export function inWords(checks: readonly Check[]): string {
  const lines = checks.map(({ level, what, remedy }) => {
    const text = remedy === undefined ? what : `${what}  — ${remedy}`;
    return `${level.padEnd(4)}  ${text.replaceAll('\n', String.raw`\n`)}\n`;
  });
  return `${lines.join('')}${works(checks) ? 'run works here.' : 'run does not work here.'}\n`;
}
