// The licences of packages that are handed on with this one.
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

/**
 * A package of npm, as it asks to be named.
 * @param {string} directory
 * @returns {{ name: string, version: string, licence: string, text: string }}
 */
export function licenceOf(directory) {
  const { name, version, license } = JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8'));
  const file = readdirSync(directory).find((entry) => /^licen[cs]e/i.test(entry));
  if (file === undefined) throw new Error(`${name}: no licence beside what is handed on`);
  return { name, version, licence: license, text: readFileSync(join(directory, file), 'utf8') };
}

/**
 * All of them in one text.
 * @param {readonly string[]} directories
 */
export function licencesText(directories) {
  return directories
    .map(licenceOf)
    .map(({ name, version, text }) => `${name} ${version}\n\n${text}`)
    .join('\n\n');
}
