import { V1, type V1StateName } from '../v1/states.ts';

/** Tells what happens, when it happens. */
export interface Story {
  part(title: string): void;
  /** `who`: one end of the migration, or the migration itself. */
  step(who: 'source' | 'destination' | 'migration', what: string): void;
  text(line: string): void;
}

/** A story in lines, with seconds since it began. */
export function printedStory(print: (text: string) => void): Story {
  const start = performance.now();
  const line = (text: string): void => print(`${text}\n`);
  return {
    part: (title) => line(`\n${title}`),
    step(who, what) {
      const seconds = ((performance.now() - start) / 1000).toFixed(2).padStart(6);
      line(`${seconds} s  ${who.padEnd(11)}  ${what}`);
    },
    text: line,
  };
}

export const silentStory: Story = { part() {}, step() {}, text() {} };

/** A state by its name, which both protocols share, and its number in v1. */
export function inBoth(state: string): string {
  const value = V1[state as V1StateName] as number | undefined;
  return value === undefined ? state : `${state} (v1 device_state ${value})`;
}

export function mib(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

export function milliseconds(seconds: number): string {
  return `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
}
