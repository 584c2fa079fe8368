import { expect, it } from 'vitest';
import { compiled, describeRunsWithCompiler } from '../../support/compiler.ts';
import { useShimRuns } from '../../support/shim-run.ts';
import { AT_LENGTH } from '../../support/runs.ts';

describeRunsWithCompiler('the data section under run', () => {
  const start = useShimRuns();

  it.each(['qat', 'vendor-v1'])(
    'is mapped by a thread of %s’s VMM that gets signals meanwhile, and gets all of them',
    async (device) => {
      const rounds = AT_LENGTH ? 1000 : 200;
      const run = start([compiled('mapper'), String(rounds)], { devices: [device], options: ['--data-size', '16K'] });
      expect(await run.ended(60_000), run.describe()).toEqual({ code: 0, signal: null });
      const done = JSON.parse(run.stdout.split('\n')[0] ?? '') as Record<string, number>;
      expect(done['sent']).toBeGreaterThan(rounds / 10);
      expect(done).toMatchObject({ rounds, failed: 0, wrong: 0, handled: done['sent'], blocked: 0 });
      expect(done['descriptors'], 'by which the memory is mapped').toBe(1);
    },
  );
});
