import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { openShell, runGuest } from './host/guest.ts';
import { allJobs, runJobs } from './host/jobs.ts';
import { namespacesCommand } from './host/namespaces.ts';
import { GUEST_KINDS, guestCommand, Guests, type GuestKind, type GuestOptions } from './host/qemu.ts';
import { Report } from './host/report.ts';
import { Share } from './host/share.ts';
import { Unavailable } from './unavailable.ts';

const usage = `npm run lab -- [options] JOB...

Runs jobs of lab/jobs in a guest with Linux 6.12, mtty devices, QEMU 7.2 and QEMU 10.0, or what a job needs in their place.

  --all            all jobs but those that take minutes
  --long           with --all: those too
  --list           say which there are
  --shell          a console in the guest instead
  --kind KIND      with --shell: of this kind of guest: ${GUEST_KINDS.join(', ')}
  --apart          a boot for each job, instead of one for all
  --patience N     all waits of jobs are N times as long, 3 by default; for a machine that is very busy
  --migrations N   as many in the job libvirt-soak, an even number from 4 on, 100 by default
  --silence S      kill a guest that says nothing for S seconds, 300 by default
  --results DIR    copy the results and the logs there`;

class UsageError extends Error {}

const say = (text: string): void => console.error(`lab: ${text}`);

function parse(argv: readonly string[]) {
  try {
    const { values, positionals } = parseArgs({
      args: [...argv],
      allowPositionals: true,
      options: {
        all: { type: 'boolean', default: false },
        long: { type: 'boolean', default: false },
        list: { type: 'boolean', default: false },
        shell: { type: 'boolean', default: false },
        kind: { type: 'string', default: 'stock' },
        apart: { type: 'boolean', default: false },
        patience: { type: 'string', default: '3' },
        migrations: { type: 'string', default: '100' },
        silence: { type: 'string', default: '300' },
        results: { type: 'string' },
        help: { type: 'boolean', default: false },
      },
    });
    const silence = Number(values.silence);
    if (!(silence > 0)) throw new Error(`--silence is not a positive number: ${values.silence}`);
    if (!/^[1-9]\d{0,2}$/.test(values.patience)) throw new Error(`--patience is not a number: ${values.patience}`);
    if (!/^(?![02]$|0)\d{0,3}[02468]$/.test(values.migrations))
      throw new Error(`--migrations is not an even number from 4 on: ${values.migrations}`);
    const known = allJobs();
    const unknown = positionals.find((name) => !known.includes(name));
    if (unknown !== undefined) throw new Error(`no such job: ${unknown}; there are ${known.join(', ')}`);
    const kind = GUEST_KINDS.find((name) => name === values.kind);
    if (kind === undefined)
      throw new Error(`no such kind of guest: ${values.kind}; there are ${GUEST_KINDS.join(', ')}`);
    const jobs = values.all ? allJobs(values.long) : positionals;
    if (jobs.length === 0 && !values.list && !values.shell && !values.help) throw new Error(usage);
    return { ...values, kind, silence, jobs };
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error), { cause: error });
  }
}

type Options = ReturnType<typeof parse>;

async function runAll({ jobs, apart, patience, migrations, silence, results }: Options): Promise<number> {
  const report = new Report();
  try {
    const guests = new Guests(say);
    using share = new Share();
    const limits = { bootMs: 240_000, silenceMs: silence * 1000 };
    const append = `lab.patience=${patience} lab.migrations=${migrations}`;
    let boots = 0;
    const commandOf = async (kind: GuestKind, options: GuestOptions & { append: string }): Promise<string[]> => {
      if (kind === 'namespaces') {
        const systems = await guests.libvirt(['bookworm']);
        return namespacesCommand(
          Object.fromEntries(systems.map(({ suite, root }) => [`libvirt-${suite}`, root])),
          options,
        );
      }
      if (kind === 'linux') {
        const { directory, qemus } = await guests.linux();
        const variables = Object.entries(qemus).map(([name, path]) => `${name}=${path}`);
        return ['env', ...variables, ...namespacesCommand({ linux: directory }, options)];
      }
      const guest = await guests.guest(kind);
      if (guest.emulated === 'aarch64') await share.addForArm64();
      return guestCommand(guest, options);
    };
    await runJobs(jobs, apart, report, async (kind, batch, onevent) => {
      const directory = share.results(++boots);
      const serial = join(directory, 'serial');
      const options = { project: share.project, results: directory, serial, append };
      const run = await runGuest(await commandOf(kind, options), options, batch, limits, onevent);
      if (results !== undefined) cpSync(options.results, `${results}/boot-${boots}`, { recursive: true });
      return run;
    });
  } catch (error) {
    if (!(error instanceof Unavailable)) throw error;
    report.unavailable(jobs, error.message);
  }
  report.close();
  return report.failed > 0 ? 1 : 0;
}

async function main(argv: readonly string[]): Promise<number> {
  const options = parse(argv);
  if (options.help || options.list) {
    console.log(options.help ? usage : allJobs().join('\n'));
    return 0;
  }
  if (!options.shell) return runAll(options);
  if (options.kind === 'namespaces' || options.kind === 'linux')
    throw new UsageError(`${options.kind}: there is no guest, and no console`);
  const guest = await new Guests(say).guest(options.kind);
  using share = new Share();
  await openShell(guest, { project: share.project, results: share.results(0) });
  return 0;
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => process.exit(1));
try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  say(error instanceof Error ? error.message : String(error));
  process.exitCode = error instanceof UsageError ? 2 : 1;
}
