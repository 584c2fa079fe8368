// Programs that the scripts run, and what goes wrong with them.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

/** Said on stderr in one line. */
export class Failure extends Error {}

/** @type {Set<import('node:child_process').ChildProcess>} */
const running = new Set();
process.once('exit', () => running.forEach((child) => child.kill()));

/**
 * Runs a program to its end and returns what it printed on stdout.
 * @param {string} file
 * @param {readonly string[]} args
 * @param {{ cwd?: string, env?: Record<string, string>, explain?: (output: string) => string | undefined }} [options]
 *   `explain` may find the reason of a failure in the output
 * @returns {Promise<string>}
 */
export async function run(file, args, { cwd, env = {}, explain = () => undefined } = {}) {
  const options = { cwd, env: { ...process.env, LC_ALL: 'C', ...env }, maxBuffer: 2 ** 26 };
  const done = promisify(execFile)(file, [...args], options);
  running.add(done.child);
  try {
    const { stdout } = await done;
    return stdout;
  } catch (error) {
    const { code, signal, stdout = '', stderr = '' } = error;
    if (code === 'ENOENT') throw new Failure(`no ${file} on this machine`);
    const output = `${stdout}${stderr}`;
    const last = output.trimEnd().split('\n').at(-1) || 'it printed nothing';
    throw new Failure(explain(output) ?? `${file} failed (${signal ?? code}): ${last}`);
  } finally {
    running.delete(done.child);
  }
}

/**
 * Runs a script that prints one line, and says in another on stderr what has gone wrong with its programs or the system.
 * @param {(args: readonly string[]) => Promise<string>} main
 * @param {(text: string) => void} say
 */
export async function runScript(main, say) {
  try {
    console.log(await main(process.argv.slice(2)));
  } catch (error) {
    if (!(error instanceof Failure) && error.syscall === undefined) throw error;
    say(error.message);
    process.exitCode = 1;
  }
}
