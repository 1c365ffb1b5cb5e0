import { createRouter, createWebHistory } from "vue-router";
import { guardRoutes } from "unbroken-session/vue";
import Login from "./Login.vue";
import Orders from "./Orders.vue";
import { session } from "./session";

export const router = createRouter({
  history: createWebHistory(),
  routes: [
    { path: "/", redirect: "/orders" },
    { path: "/login", component: Login },
    { path: "/orders", component: Orders, meta: { requiresAuth: true } },
  ],
});
guardRoutes(router, session); // to the login page, and back
