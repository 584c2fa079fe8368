// What scripts make of files that people read.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';

/**
 * @typedef {object} By how a file is made: `what` it has to be, the `command` that makes it, and whether it is only looked at
 * @property {string} what
 * @property {string} command
 * @property {boolean} isCheck
 */

/**
 * Puts a text between two lines of a file, formats the file, and writes it; a check complains if that changes it.
 * @param {string} file
 * @param {string} begin
 * @param {string} end
 * @param {string} text
 * @param {By} by
 */
export function fill(file, begin, end, text, by) {
  const before = readFileSync(file, 'utf8');
  const [head, rest = ''] = before.split(begin, 2);
  const tail = rest.slice(rest.indexOf(end));
  if (!tail.startsWith(end)) throw new Error(`${file}: ${begin} ... ${end} is missing`);
  const input = `${head}${begin}\n${text}\n${tail}`;
  put(file, execFileSync('node_modules/.bin/oxfmt', [`--stdin-filepath=${file}`], { input, encoding: 'utf8' }), by);
}

/**
 * Writes a file; a check complains if that changes it.
 * @param {string} file
 * @param {string} text
 * @param {By} by
 */
export function put(file, text, { what, command, isCheck }) {
  if (existsSync(file) && readFileSync(file, 'utf8') === text) return;
  if (!isCheck) {
    writeFileSync(file, text);
    return;
  }
  console.error(`${file} is not what ${what}: ${command}`);
  process.exitCode = 1;
}
