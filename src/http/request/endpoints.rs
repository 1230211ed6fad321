//! The routes of a part of the API, kept as a list until the router is made of them, so that each can be
//! looked up in the table of paths.

use axum::Router;
use axum::routing::MethodRouter;

/// Paths in the router's own words, and what answers them.
pub(crate) struct Endpoints<S>(Vec<(&'static str, MethodRouter<S>)>);

impl<S: Clone + Send + Sync + 'static> Endpoints<S> {
    pub fn new() -> Self {
        Self(Vec::new())
    }

    pub fn route(mut self, path: &'static str, answered_by: MethodRouter<S>) -> Self {
        self.0.push((path, answered_by));
        self
    }

    pub fn merge(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    #[cfg(test)]
    pub fn paths(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|(path, _)| *path)
    }

    pub fn into_router(self) -> Router<S> {
        let routes = self.0.into_iter();
        routes.fold(Router::new(), |router, (path, answered_by)| {
            router.route(path, answered_by)
        })
    }
}
