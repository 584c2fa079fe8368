import { defineConfig } from 'vitest/config';

// For Stryker: the unit tests of the rooms that are mutated, which start no process; but for those that move gigabytes. The
// modules are loaded once for all test files, not once for each.
export default defineConfig({
  test: {
    include: ['test/{bridge,v1,v2,vfio,kernel}/**/*.test.ts'],
    exclude: ['test/bridge/above-4g.test.ts'],
    setupFiles: 'test/support/to-be-bytes.ts',
    env: { VFIO_SHIM_FEW: '1' },
    isolate: false,
    testTimeout: 30_000,
  },
});
