import { spawn } from 'node:child_process';
import { writeSync } from 'node:fs';
import type { AttemptLine, AttemptName, Outcome } from './outcome.ts';

/*
 * Makes the attempts that its arguments name, and says on stdout what it begins and what comes of it. A sandbox may kill it over any.
 */

const say = (line: AttemptLine): void => void writeSync(1, `${JSON.stringify(line)}\n`);

async function main(names: readonly AttemptName[]): Promise<void> {
  say({ begin: 'koffi' });
  const attempts = await loaded();
  say({ end: 'message' in attempts ? attempts : { name: 'koffi' } });
  if ('message' in attempts) return;
  const peer = spawn('/bin/sh', ['-c', 'read -r _'], { stdio: ['pipe', 'ignore', 'ignore'] });
  peer.on('error', () => {}); // it has no id then, and what needs it fails
  const made = new attempts.Attempts(peer.pid ?? -1);
  for (const name of names) {
    if (name === 'koffi') continue;
    say({ begin: name });
    say({ end: made.try(name) });
  }
  process.exit(); // the peer ends with its stdin
}

/** koffi is a native module, which the first import loads. */
async function loaded(): Promise<typeof import('./attempts.ts') | Required<Pick<Outcome, 'name' | 'message'>>> {
  try {
    return await import('./attempts.ts');
  } catch (error) {
    const [message = ''] = (error instanceof Error ? error.message : String(error)).split('\n'); // Node's goes on with a stack
    return { name: 'koffi', message };
  }
}

void main(process.argv.slice(2) as AttemptName[]);
