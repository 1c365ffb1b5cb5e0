export default {
  typescript: { ignoreBuildErrors: true },
  rewrites: async () => [{ source: "/auth/:path*", destination: `${process.env.AUTH}/auth/:path*` }],
};
