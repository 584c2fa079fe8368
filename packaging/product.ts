import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { Failure } from '../scripts/lib/process.mjs';

/** What is packaged. */
export interface Product {
  readonly name: string;
  readonly version: string;
  readonly description: string;
  /** Who has made the packages, as `NAME <ADDRESS>`, if the packager has said so. */
  readonly maintainer: string;
  /** The time that every file gets, in seconds since 1970. */
  readonly epoch: number;
}

/** Of the checkout that is the working directory. */
export function readProduct(env: NodeJS.ProcessEnv = process.env): Product {
  const { name, version, description } = JSON.parse(readFileSync('package.json', 'utf8')) as Product;
  return { name, version, description, maintainer: maintainerOf(env), epoch: epochOf(env) };
}

/** The day of a product, as the pages of a manual have it. */
export function dayOf({ epoch }: Product): string {
  return new Date(epoch * 1000).toISOString().slice(0, 10);
}

/** Debian's tools take the packager's name and address from the same variables (debchange(1)). */
function maintainerOf({ DEBFULLNAME: name, DEBEMAIL: address }: NodeJS.ProcessEnv): string {
  if (name === undefined && address === undefined) return 'the authors of vfio-shim';
  if (name === undefined || address === undefined) throw new Failure('give both DEBFULLNAME and DEBEMAIL, or neither');
  return `${name} <${address}>`;
}

/** https://reproducible-builds.org/specs/source-date-epoch/, and without it the last commit's time. */
function epochOf({ SOURCE_DATE_EPOCH: given }: NodeJS.ProcessEnv): number {
  const text = given ?? lastCommit();
  if (/^\d{1,10}$/.test(text)) return Number(text);
  throw new Failure(`SOURCE_DATE_EPOCH: ${JSON.stringify(text)} is not a number of seconds`);
}

function lastCommit(): string {
  try {
    const stdio = ['ignore', 'pipe', 'ignore'] as const;
    return execFileSync('git', ['log', '-1', '--format=%ct'], { encoding: 'utf8', stdio: [...stdio] }).trim();
  } catch {
    throw new Failure('this is no checkout of git, whose last commit says the time: set SOURCE_DATE_EPOCH');
  }
}
